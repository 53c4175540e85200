"""What is measured: overlap and accuracy, flow between picture and noise, sets of pictures, intervals."""
