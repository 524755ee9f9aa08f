"""Built-in routes that are registered as an extension's are.  A drop-in folder of ``register_api_routes``."""
