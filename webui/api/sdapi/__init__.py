"""The API of AUTOMATIC1111 and Forge, so that their clients work here: a translation, nothing of its own.

``translation`` builds the same request that ``/api/v1`` takes; ``responses`` and ``listings`` put answers into the
other shape.  Differences from upstream are in ``docs/sdapi.md``.
"""
