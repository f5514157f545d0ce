"""The engine: sessions, mailboxes, batching. Knows no HTTP, no messages, no model and no torch."""
