"""Editing data of today's trainers: reference images and a text that asks for one image more, in their own layouts."""
