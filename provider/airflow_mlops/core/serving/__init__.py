"""Model servers: their desired state, the reconciler that makes it so, and the gateway in front of them."""
