"""The reference router, in the order that a request meets it.

``server`` listens, ``front`` reads the request, ``app`` tells own paths (``admin``) from forwarded ones, ``auth`` asks
for keys, ``view`` reads what routing needs, ``rules`` say where it may go, ``policies`` pick a worker of the
``registry``, ``proxy`` sends it there over ``upstream`` and ``exchange`` and retries, ``relay`` passes the answer on
through ``reply``; ``refusals`` are the answers of the router's own. A ``journey`` is one request on this way.
``breaker`` and ``health`` decide who may be picked, ``spec`` what an operator declares of a worker, ``config`` holds
all that one decides, ``config_file`` reads it. Where prefill and decode are workers of their own, ``pd`` serves a
request by two of them: ``pairs`` picks, ``bootstrap`` introduces them to each other, ``legs`` holds both exchanges.
"""
