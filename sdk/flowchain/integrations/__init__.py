"""What keeps the thread in other people's libraries: one small module each, wrapped when the host imports the library.

Nothing here is imported by `import flowchain`, and nothing here imports a library that the host has not imported.
"""
