"""From a dataset to other people and other trainers: publications, takedowns, exports."""
