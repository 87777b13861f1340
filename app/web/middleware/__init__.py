"""What happens to every request before and after its route: pure ASGI, outermost first.

`request_context.py`  request id, locale, security headers, the access log line; HEAD served as GET
`trusted_hosts.py`    an unknown Host header is refused
`cors.py`             which scripts of other origins may call (with CORS_ORIGINS only)
`body_size.py`        413 before a large body is read
`timeout.py`          503 when the answer takes too long; ends reads whose client has hung up
`login_admission.py`  503 for logins that would wait too long for their hash
`retry.py`            deadlock: run again; database away: 503; a defect: 500 and one log record
"""
