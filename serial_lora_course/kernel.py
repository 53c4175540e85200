"""The course's Jupyter kernel: ipykernel, started after PyTorch's threads are settled.

python -m serial_lora_course.kernel -f {connection_file}     what the kernelspec runs
"""

from ipykernel.kernelapp import launch_new_instance

if __name__ == "__main__":
    launch_new_instance()
