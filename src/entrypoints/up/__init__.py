"""Keep the service, its workers and the demo running together."""
