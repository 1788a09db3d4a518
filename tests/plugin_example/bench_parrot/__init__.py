"""What an outsider can add to bench, one of each kind, a file each. Nothing of it is part of bench."""
