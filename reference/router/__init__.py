"""The reference router, in the order that a request meets it.

``server`` listens, ``front`` reads the request, ``app`` tells own paths (``admin``) from forwarded ones, ``view`` reads
what routing needs, ``policies`` pick a worker of the ``registry``, ``proxy`` sends it there over ``upstream`` and
``exchange`` and retries, ``relay`` passes the answer on through ``reply``. ``breaker`` and ``health`` decide who may be
picked.
"""
