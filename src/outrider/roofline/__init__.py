"""What a pass costs on given hardware, predicted from the model's shapes: whether MTP pays, before anything is run.

The roofline model (Williams, Waterman and Patterson 2009): every matrix has to be read and has to be multiplied, and
the slower of the two bounds the time.
"""
