"""From files on disk or on the network to canonical images and patches."""
