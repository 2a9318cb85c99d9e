package ai.nasedge.example

import java.io.File
import javax.imageio.ImageIO
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
            val image = ImageIO.read(File(bundle, "golden/$number.png"))
            // Not getRGB, which takes a grey image for linear light and brightens it; Android's decoder does not.
            val raster = image.raster
            val argb = IntArray(image.width * image.height) {
                val bands = raster.getPixel(it % image.width, it / image.width, null as IntArray?)
                val blue = if (bands.size < 3) bands[0] else bands[2]
                val green = if (bands.size < 3) bands[0] else bands[1]
                bands[0] shl 16 or (green shl 8) or blue
            }
            val found = ModelFacts.preprocessing().apply(argb, image.width, image.height)
            val expected = Golden.floats(File(bundle, "golden/${number}_input.npy").readBytes())
            assertEquals(expected.size, found.size)
            for (i in expected.indices) {
                val pixelSteps = abs(found[i] - expected[i]) * ModelFacts.STD[i % ModelFacts.STD.size]
                assertTrue("image $number, value $i: $pixelSteps of 255", pixelSteps <= 1.01f)
            }
        }
    }
}
