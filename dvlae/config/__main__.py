"""``python -m dvlae.config`` prints ``config/README.md``."""

if __name__ == "__main__":
    from dvlae.config.reference import reference

    print(reference(), end="")
