"""At work: adapt any vision model to a folder of pictures, ask it, merge it, hand it on."""
