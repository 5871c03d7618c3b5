from setuptools import setup

setup(
    name="monodepth2-clean",
    version="0.1.0",
    description="Self-supervised monocular depth (Monodepth2), written anew for today's PyTorch",
    license="MIT",
    python_requires=">=3.10",
    packages=["networks", "datasets"],
    py_modules=[
        "checkpoint",
        "distributed",
        "inference",
        "layers",
        "logger",
        "losses",
        "metrics",
        "options",
        "released",
        "speed",
        "trainer",
        "trajectory",
        "utils",
    ],
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "numpy>=1.26",
        "pillow>=10",
        "scikit-image>=0.22",
        "scipy>=1.11",
        "opencv-python-headless>=4.10",
        "tensorboardX>=2.6",
        "matplotlib>=3.8",
        "tqdm>=4.66",
        "jaxtyping>=0.2.34",
        "h5py>=3.10",
    ],
    extras_require={
        "test": [
            "pytest>=8",
            "hypothesis>=6.100",
            "beartype>=0.18",
            "ruff>=0.5",
            "evo>=1.28",
            "scikit-learn>=1.4",
        ]
    },
)
