"""The sizes that follow from one another: of crops, patches and the decoder's receptive field."""
