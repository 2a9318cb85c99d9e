package ai.nasedge.example

import java.io.File
import javax.imageio.ImageIO
import kotlin.math.abs
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

/** Runs on the development machine: `./gradlew :model:test`. */
class PreprocessingTest {
    @Test
    fun preprocessesTheGoldenImagesAsInTraining() {
        val bundle = File(System.getProperty("bundle"))
        for (number in 0 until ModelFacts.GOLDEN_IMAGES) {
            val image = ImageIO.read(File(bundle, "golden/$number.png"))
            val argb = image.getRGB(0, 0, image.width, image.height, null, 0, image.width)
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
