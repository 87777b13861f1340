"""Tests of mails: the outbox, its delivery, the queue and its workers."""
