from authors import code  # noqa: F401
