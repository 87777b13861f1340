"""Tests of settings, the files of a deployment, and servers in processes of their own."""
