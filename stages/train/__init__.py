"""Features -> heads: small networks trained on cached features in seconds."""
