"""What goes to the Hub: model cards, their facts and citations."""
