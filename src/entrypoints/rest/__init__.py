"""The HTTP service: routes, and the shield before them."""
