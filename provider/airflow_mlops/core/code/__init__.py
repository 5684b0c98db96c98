"""Code of users: git repositories, their commits, and working copies of them."""
