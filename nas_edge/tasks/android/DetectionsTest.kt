package ai.nasedge.example

import kotlin.math.abs
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

/** Runs on the development machine: `gradle :model:test`. */
class DetectionsTest {
    @Test
    fun findsWhatThePythonProgramFinds() {
        val found = DetectionsCase.detections.of(DetectionsCase.OUTPUTS)
        assertEquals(DetectionsCase.EXPECTED.size, 6 * found.size)
        for (i in found.indices) {
            val one = found[i]
            val values = floatArrayOf(one.left, one.top, one.right, one.bottom, one.label.toFloat(), one.score)
            for (j in values.indices) {
                val difference = abs(values[j] - DetectionsCase.EXPECTED[6 * i + j])
                assertTrue("detection $i, value $j: differs by $difference", difference <= 1e-4f)
            }
        }
    }
}
