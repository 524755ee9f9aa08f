"""Finds built-in parts and extensions and builds the plugin manager."""
