from tests.bad_input.case import Case

CASES: list[Case] = []
