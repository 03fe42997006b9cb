"""Result files in, tables and pages out."""
