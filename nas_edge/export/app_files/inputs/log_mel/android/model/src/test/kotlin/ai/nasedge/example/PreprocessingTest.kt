package ai.nasedge.example

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

/** Runs on the development machine: `gradle :model:test`. */
class PreprocessingTest {
    @Test
    fun preprocessesTheGoldenExamplesAsInTraining() {
        val bundle = File(System.getProperty("bundle"))
        for (number in 0 until ModelFacts.GOLDEN_EXAMPLES) {
            val found = ModelFacts.preprocessing().apply(samples(File(bundle, "golden/$number.wav").readBytes()))
            val expected = Golden.floats(File(bundle, "golden/${number}_input.npy").readBytes())
            assertEquals(expected.size, found.size)
            for (i in expected.indices) {
                val decibels = abs(found[i] - expected[i]) * ModelFacts.STD[0]
                assertTrue("recording $number, value $i: $decibels dB", decibels <= 0.01f)
            }
        }
    }

    /** Of a WAV file as the bundle has them: 16 bits, one channel, 44 bytes of header. */
    private fun samples(content: ByteArray): FloatArray {
        val buffer = ByteBuffer.wrap(content).order(ByteOrder.LITTLE_ENDIAN)
        buffer.position(44)
        return FloatArray(buffer.remaining() / 2) { buffer.getShort() / 32768f }
    }
}
