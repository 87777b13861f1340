"""Work behind the requests: mails and their delivery."""
