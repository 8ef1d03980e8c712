"""What draws a figure with Matplotlib and nothing else; a bundle carries a copy of this package.

So its modules import one another relatively, and at run time nothing but Matplotlib and the standard
library. They read a figure's records by attribute: pydantic models here, plain namespaces made from a
bundle's JSON there.
"""
