"""The methods that the paper compares with, one short file each, come here with Tables 4 and 5."""
