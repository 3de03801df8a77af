"""What a method needs to be trained: how its adapter is made, and what its conditions are of examples with drops.

Examples of a micro-batch are encoded together; conditions of each example are what `Adapter.encode` would give of its
references, with the method's own null condition where references are dropped.
"""
