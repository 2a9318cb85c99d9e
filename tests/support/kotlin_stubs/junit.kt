package org.junit

annotation class Test

object Assert {
    fun assertEquals(expected: Any?, actual: Any?) {
        if (expected != actual) throw AssertionError("expected $expected, was $actual")
    }

    fun assertTrue(message: String, condition: Boolean) {
        if (!condition) throw AssertionError(message)
    }

    fun assertTrue(condition: Boolean) = assertTrue("false", condition)
}
