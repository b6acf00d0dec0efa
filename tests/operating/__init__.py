"""Backup, doctor, version mark, logs and what is shipped for deployment."""
