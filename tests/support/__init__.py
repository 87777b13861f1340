"""What tests share: the client, the people in it, the contract."""
