"""Tables of what runs show, for pages, notebooks and figures: tickets in, numbers and words out.

Nothing here draws or imports torch. What one figure alone draws stands beside that figure.
"""
