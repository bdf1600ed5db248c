"""What each local condition computes on its own. The laws of local conditions are in tests/laws."""

import jax.numpy as jnp
import numpy as np
from laws.cases.conditions import make_case


def test_codes_are_read_as_the_sum_of_a_vector_of_each_codebook():
    case = make_case("codes")
    condition, codes = case.condition, np.asarray(case.features, int)
    vectors = sum(np.asarray(table)[codes[..., k]] for k, table in enumerate(condition.tables[...]))
    np.testing.assert_allclose(case.call(case.features), condition.frames(jnp.asarray(vectors)), atol=1e-5)
