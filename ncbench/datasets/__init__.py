"""From official files to a verified store: fetch, readers, prepare, shards."""
