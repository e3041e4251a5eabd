"""The words that leave the process, defined once.

The domain holds the values as frozen dataclasses without any framework, and services use them as they are.
The modules here have pydantic read, check and describe those values: as JSON, as form fields and in OpenAPI.
"""
