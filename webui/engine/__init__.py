"""The one place with state: the queue, the worker process, what is loaded, events, outputs."""
