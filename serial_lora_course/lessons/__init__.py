"""One folder a lesson; what two lessons share stands outside."""
