"""What a picture's file says beside its pixels: places, names, serial numbers, thumbnails. Taken out without decoding.

One file a format; each keeps what the pixels, their colours and their orientation need, and nothing else: what no list
here names goes.
"""
