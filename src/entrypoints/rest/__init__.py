"""The HTTP service: routes, and the shield in front of them."""
