package ai.nasedge.example

import androidx.test.ext.junit.runners.AndroidJUnit4
import androidx.test.platform.app.InstrumentationRegistry
import kotlin.math.abs
import kotlin.math.max
import kotlin.math.min
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith

/** Runs on a phone: `gradle :model:connectedAndroidTest`. */
@RunWith(AndroidJUnit4::class)
class EdgeModelTest {
    private val context = InstrumentationRegistry.getInstrumentation().targetContext

    @Test
    fun answersAsRecorded() {
        EdgeModel(context).use { model ->
            var builtin = 0f
            var xnnpack = 0f
            for (number in 0 until ModelFacts.GOLDEN_EXAMPLES) {
                val found = model.run(Golden.floats(asset("golden/${number}_input.npy")))
                builtin = max(builtin, difference(found, recorded(number, "builtin")))
                xnnpack = max(xnnpack, difference(found, recorded(number, "xnnpack")))
            }
            // Runtimes have two families of kernels that round differently; either will do.
            assertTrue("differs by $xnnpack and $builtin", min(xnnpack, builtin) <= ModelFacts.TOLERANCE)
        }
    }

    private fun recorded(number: Int, kernels: String): FloatArray {
        val content = asset("golden/${number}_${ModelFacts.PRECISION}_$kernels.npy")
        return Golden.outputs(content, ModelFacts.OUTPUT_BYTES, ModelFacts.OUTPUT_SCALE, ModelFacts.OUTPUT_ZERO_POINT)
    }

    private fun difference(found: FloatArray, recorded: FloatArray): Float =
        found.indices.map { abs(found[it] - recorded[it]) }.max()!!

    private fun asset(name: String): ByteArray = context.assets.open(name).use { it.readBytes() }
}
