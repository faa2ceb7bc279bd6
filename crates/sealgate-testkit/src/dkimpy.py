"""dkimpy as the tests' other implementation of DKIM and ARC.

sign SELECTOR DOMAIN KEYFILE   message on stdin, signed message on stdout
seal SELECTOR DOMAIN KEYFILE   message on stdin, message with an ARC set on top on stdout
dkim PORT | arc PORT           message on stdin, "pass" or what is wrong on stdout; keys from the name server at that port
"""

import sys

import dkim
import dns.resolver

verb, arguments, message = sys.argv[1], sys.argv[2:], sys.stdin.buffer.read()


def key(name, timeout=5):
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = int(arguments[0])
    try:
        answer = resolver.resolve(name.decode().rstrip("."), "TXT")
    except dns.exception.DNSException:
        return None
    return b"".join(answer[0].strings)


if verb == "sign":
    selector, domain, file = arguments
    with open(file, "rb") as pem:
        field = dkim.sign(message, selector.encode(), domain.encode(), pem.read())
    sys.stdout.buffer.write(field + message)
elif verb == "seal":
    selector, domain, file = arguments
    message = b"Authentication-Results: " + domain.encode() + b"; spf=none\r\n" + message
    with open(file, "rb") as pem:
        fields = dkim.arc_sign(message, selector.encode(), domain.encode(), pem.read(), domain.encode())
    sys.stdout.buffer.write(b"".join(fields) + message)
elif verb == "dkim":
    print("pass" if dkim.verify(message, dnsfunc=key) else "fail")
else:
    state, results, why = dkim.arc_verify(message, dnsfunc=key)
    print("pass" if state == b"pass" else f"{state} {why} {results}")
