"""What people touch: the ``ltdpipe`` command, parameters, profiles, progress."""
