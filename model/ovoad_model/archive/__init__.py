"""Whole archives of videos scored on many workers: folders and object stores in, Parquet out."""
