"""Mooncake's client in a process of its own: values go between a cluster's pool and memory that Reprise sees too.

Mooncake has a Python extension, and no C API that could be loaded into Node. Reprise starts this package as a program
with two open files: a socket that nobody else has, and memory. Over the socket go names, places and outcomes, never
values.

    __main__.py   the process: it lives as long as its socket
    messages.py   what is said over it
    values.py     Mooncake's client
"""
